"""The flags benchmark: countries as the people, for a language model that already knows them."""
