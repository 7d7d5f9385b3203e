"""The object store on Google Cloud Storage."""
