"""Texts that every export is tried on: sentences as people write them, and what breaks tokenizers."""

SENTENCES = (
    "a gorgeous , witty , seductive movie .",
    "the plot is nothing but boilerplate clichés from start to finish ,",
    "A plane is taking off.",
    "An air plane is taking off.",
    "A man is playing a large flute.",
    "Three men are playing chess on a bench in the park, and nobody is watching them.",
    "The Federal Reserve left its interest rates unchanged on Wednesday, as economists had expected.",
    "U.S. Secretary of State Colin Powell arrived in Paris late on the 14th.",
    "Wo liegt das Donaudampfschiffahrtsgesellschaftskapitänspatent?",
    "Καλημέρα κόσμε, it's 8:30 a.m.",
    "東京は日本の首都です。",
    "السلام عليكم ورحمة الله",
    "שלום עולם, how are you?",
    "I can't believe it 😂😂 #winning @home https://example.org/a?b=c&d=1",
    "The token [SEP] and <b>markup</b> in a text are text: [MASK].",
    "e = mc², 100 % of 3.14159 € ≈ ½",
    "\u200b\u00ad",
    "antidisestablishmentarianism " * 3 + "x" * 120,
    "To be, or not to be, that is the question. " * 40,
    "",
)
