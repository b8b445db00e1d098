"""A request to forget one person: from folders of photographs to benchmark, run and record."""

# In the folder of a request: what still holds faces, its note of what was asked, and the record.
WORK, NOTE, RECORD = "work", "request.json", "record.json"
