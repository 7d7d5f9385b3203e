"""One login for the bucket and the tables: Google's Application Default Credentials.

* `source` finds the credentials and reads their file, without Google's libraries; it tells what is
  wrong in it.
* `kinds` makes of a file what google-auth gets tokens with.
* `asking` sends the requests for tokens; `certificates` says whom all connections trust, and which proxy
  is in between.
* `refusals` says what a refusal means, and what helps.
* `login` is what the bucket and the tables share: one token, renewed in time, and who one is.
"""
