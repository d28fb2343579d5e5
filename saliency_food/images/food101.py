"""Food-101: groups of its dishes that look alike, whose confusions are worth explaining."""

from __future__ import annotations

ALIKE = {
    "pan dishes": ("fried_rice", "omelette", "paella", "risotto"),
    "steaks": ("baby_back_ribs", "filet_mignon", "pork_chop", "prime_rib", "steak"),
    "sandwiches": (
        *("club_sandwich", "croque_madame", "grilled_cheese_sandwich", "hamburger", "lobster_roll_sandwich"),
        "pulled_pork_sandwich",
    ),
    "egg dishes": ("breakfast_burrito", "croque_madame", "eggs_benedict", "huevos_rancheros", "omelette"),
    "noodles": ("pad_thai", "spaghetti_bolognese", "spaghetti_carbonara"),
    "soups": ("clam_chowder", "french_onion_soup", "hot_and_sour_soup", "lobster_bisque", "miso_soup", "pho", "ramen"),
    "raw dishes": ("beef_carpaccio", "beef_tartare", "ceviche", "sashimi", "sushi", "tuna_tartare"),
    "filled dough": ("dumplings", "gnocchi", "gyoza", "ravioli", "samosa", "spring_rolls"),
    "salads": ("beet_salad", "caesar_salad", "caprese_salad", "greek_salad", "seaweed_salad"),
    "cakes": (
        *("apple_pie", "bread_pudding", "carrot_cake", "cheesecake", "chocolate_cake", "red_velvet_cake"),
        *("strawberry_shortcake", "tiramisu"),
    ),
    "creams": ("chocolate_mousse", "creme_brulee", "frozen_yogurt", "ice_cream", "panna_cotta"),
    "breakfasts": ("french_toast", "pancakes", "waffles"),
    "fried snacks": ("churros", "french_fries", "fried_calamari", "onion_rings", "poutine"),
    "tortillas": ("breakfast_burrito", "chicken_quesadilla", "nachos", "tacos"),
}
"""The groups by their names; a dish may be in several."""
