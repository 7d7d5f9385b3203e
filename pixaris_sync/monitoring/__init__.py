"""What shows how it is: to people in a terminal or a browser, to machines as metrics and health.

Everything that is shown comes from one reading of the ledger (`view`), so that no two places disagree. It is
read in a thread, over a connection of its own, and only when somebody looks: whoever works with the ledger is
not held up. Nothing here changes anything, and nothing here asks a service.
"""
