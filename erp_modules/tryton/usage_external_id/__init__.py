# SPDX-License-Identifier: GPL-3.0-or-later
"""A Tryton module: external ids on account moves, and an endpoint that posts each id once."""
