"""How good is it: metrics per case, and files that hold them."""
