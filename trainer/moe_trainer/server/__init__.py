"""The expert server: one model behind the OpenAI API (`moe-trainer serve`)."""
