"""Parts that are killed, stopped, slow or out of room: nothing passes in between, and the next hop after recovery does."""
