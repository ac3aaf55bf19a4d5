"""The zip archive of a `.keras` file.

records.py    local headers, directory and end record
checks.py     what makes an archive damaged
keras_zip.py  a `.keras` file, read and written
"""
