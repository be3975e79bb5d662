"""The methods, room by room: each a function from a typed request to a typed answer."""
