"""What the project costs in a cloud: quantities measured here, prices as inputs, and the page that joins them."""
