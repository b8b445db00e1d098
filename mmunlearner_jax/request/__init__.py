"""A request to forget one person: from folders of photographs to benchmark, run and record."""

PERSON = "person"  # ID of the person to forget
# In the folder of a request: what still holds faces, its note of what was asked, the record, and
# the model.
WORK, NOTE, RECORD, MODEL = "work", "request.json", "record.json", "model"
