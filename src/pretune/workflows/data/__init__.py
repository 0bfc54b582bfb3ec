"""``pretune data``: look at raw text, and clean it into a folder."""
