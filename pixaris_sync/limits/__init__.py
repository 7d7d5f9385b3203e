"""How much at once, how fast, and when again. Time is passed in."""
