"""Family `lists`: short questions about short lists, made by program. Needs no download."""
