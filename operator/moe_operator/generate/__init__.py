"""What is written from the models and never by hand: CRDs, the chart's copies, rules of roles and schema, reference pages.

`python -m moe_operator.generate` writes the files, `--check` fails where one of them is out of date.
"""
