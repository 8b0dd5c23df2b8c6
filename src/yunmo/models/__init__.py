"""Networks: an encoder for each input field, layers that combine them, one head per output. The home of torch."""
