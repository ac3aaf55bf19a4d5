"""Tables and figures for people: what the library returned, shown. Nothing is computed here."""
