# A thin list of the scripts; make itself is not needed.
.PHONY: demo test lint bench lock fuzz
demo test lint bench lock fuzz:
	scripts/$@
