"""Local stand-ins for Google Cloud Storage and BigQuery, and a demonstration of the whole journey on them.

Only this package knows emulators. What they do differently from the real services is mended here, so that
the product speaks to them as it speaks to Google. Needs the ``sandbox`` extra.
"""
