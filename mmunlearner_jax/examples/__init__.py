"""The example benchmark and its models: the ORL faces in both schemas, and small tokenizers."""
