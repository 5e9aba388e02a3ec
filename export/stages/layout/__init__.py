"""Channels last -> channels second, with few Transposes: `transposes.cancel_transposes`."""
