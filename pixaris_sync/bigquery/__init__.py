"""The row sink on BigQuery."""
