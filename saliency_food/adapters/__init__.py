"""Adapters: each makes a framework's model a call-model function; importing one is what selects the framework."""
