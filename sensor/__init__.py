"""The second witness: what the kernel saw of every connection, whoever made it and whatever it says of itself."""
