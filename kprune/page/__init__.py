"""How results are printed: the basis of everything that a person reads.

page.py       a page of lines: standard output, a text, HTML
html.py       the page of a notebook
tables.py     tables and labelled texts, laid out in as many columns as there are
figures.py    numbers as people read them
notes.py      notes and errors on standard error
plot.py       curves as a picture
streams.py    standard output and standard error, closed, full or left by their reader
json_text.py  JSON as kprune prints it
result.py     what every result of a command has in common
"""
