"""One image: decode, check, resize, enhance, draw a phantom; bytes and arrays only."""
