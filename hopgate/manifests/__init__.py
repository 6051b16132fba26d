"""Resources from a folder of manifests: YAML and JSON documents, read whole, watched for edits."""
