"""Our own manifest: what production lines took in, signed by their stations line by line.

A bundle is a file of JSON lines (`wire`): an opening with the station's certificate, one line a chip, a seal. Each line
names the SHA-256 of the one before and is signed by the station, so nothing can be changed, moved, added or taken out.
A chip's line holds its certificates, the board's serial number, the operator, and the chip's own signature over a nonce
of all of these, which no other chip and no other line can use. A file may hold several sealed bundles, one after
another.

| module | |
|---|---|
| model | values: what an intake is, whom to believe |
| wire | lines <-> values, for who writes and who reads |
| rules | what is signed by a chip; whether it may be taken in; whether a line is believed |
| looking | what a line says by itself: the costly part |
| verify | a file, line by line |
| many | a long file, by all cores |
| station | the writing side: the open bundle, what was taken in before |
| identity | a station's key and certificate |
| files | what a power loss leaves |
"""
