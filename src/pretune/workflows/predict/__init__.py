"""``pretune predict``, and what every verb that answers the records of a file shares."""
