"""What self-supervised learning sees: HU windows, recipes as data, batched random views."""
