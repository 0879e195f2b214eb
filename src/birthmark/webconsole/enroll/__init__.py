"""*Enroll*: a device list is uploaded, checked row by row, and enrolled in the background.

| module | |
|---|---|
| bounds | limits of size and time |
| receiving | a browser's upload, to files, during the transfer |
| reading | files to rows, each verified, or the reason for its rejection |
| drops | uploads as files, which another process can resume |
| working | check and run, in the background |
| report | the result of each row, as a file |
| page | the pages |
"""
