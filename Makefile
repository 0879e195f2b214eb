# A thin list of the scripts; make itself is not needed.
.PHONY: demo test lint bench lock fuzz docs package
demo test lint bench lock fuzz docs package:
	scripts/$@
