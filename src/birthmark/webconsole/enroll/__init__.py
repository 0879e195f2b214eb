"""*Enroll*: a list of devices is dropped, looked at row by row, and put on record while others are served.

| module | |
|---|---|
| bounds | how much of it, for how long |
| receiving | what a browser sends, to files, while it is read |
| reading | files to rows, each verified, or why it is not believed |
| drops | what was dropped, as files: what is left by one process another goes on with |
| working | the look and the run, in the background |
| report | what became of each, as a file |
| page | the pages |
"""
