"""An image classifier trained, registered, served and watched."""

__version__ = "0.1.0"
