"""*Enroll*: a device list is uploaded, checked row by row, and enrolled in the background.

| module | |
|---|---|
| limits | limits of size and time |
| multipart | a browser's upload, to files, during the transfer |
| parser | files to rows, each verified, or the reason for its rejection |
| uploads | uploads as files, which another process can resume |
| worker | check and run, in the background |
| page | the pages, and the result of each row as a file |
"""
