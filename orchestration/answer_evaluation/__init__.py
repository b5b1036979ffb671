"""How well are questions answered? Engines and adapters are asked a collection, measured and gated."""
