"""pixaris-sync: carries Pixaris runs from ``local_results/`` to Google Cloud Storage and BigQuery."""

__version__ = "0.1.0"
