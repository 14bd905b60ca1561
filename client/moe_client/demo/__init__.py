"""What `make demo` needs besides the product: text to train on."""
