"""The plugins that come with rtgan, one file each."""
