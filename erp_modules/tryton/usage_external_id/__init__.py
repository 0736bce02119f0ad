# SPDX-License-Identifier: GPL-3.0-or-later
"""A Tryton module: external ids on account moves and customer invoices, and calls that make each id once."""
