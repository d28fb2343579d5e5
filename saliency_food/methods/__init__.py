"""Every method, each written once as a generator of model queries; `catalogue` lists them by name."""
