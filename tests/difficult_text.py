"""Where tokenizers go wrong: texts made of difficult characters."""

import random

# Several of each kind, so that they meet.
DIFFICULT = (
  "aAbB xyz", "ΣσςΑβΣΣΣ", "İIıiĳǅß", "'.-:·’,!", " \t\n\u00a0\u3000\u2028",
  "\0\ufffd\x85\u200b\u200d\ufeff\u00ad", "中文\uf900\U0002f800々〇",
  "\u0300\u0301\u0345\u0315\u0327\u0900\u093c\u094d\u0483\ufe0f",
  "한글\u1100\u1161\u11a8\ud7a3", "ﬁﬀＡ²½①㎏",
  "\u1715\u1734\u1b44\u302e\u302f\U00016ff0\U0001d15e\U0001d160\U0001d165"
  "\U0001d16d\U0001d1bf\U0001d157", "éÅ\u2260\u037e\u1ffd", "😀👩‍👧🏽",
  "\u0898\u0c3c\u1ac1\u1dfa\u2c2f\ua7c0\U00010570\U000105c9\U00011383",
  "\ufffe\U0001ffff\ue000\U0010ffff\u0378",
)

# Longer stretches, each a text by itself or a part of one.
_SCRIPTS = (
  "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
  "абвгґдеєжзіїйклмнопрстуфхцчшщьюяЁЙ", "αβγδεζηθικλμνξοπρστυφχψωΆΈΣΐΰ",
  "אבגדהוזחטיךכלםמןנסעףפץצקרשתְֱִֵַָ", "ابتثجحخدذرزسشصضطظعغفقكلمنهويءآًٌٍَُِّْ",
  "अआइईउऊकखगघचछजझटठडढतथदधनपफबभमयरलवशषसहािीुूेैोौ्ंँक़", "กขคงจชซดตถทนบปผพฟมยรลวสหอะาิีุูเแโไ่้",
  "ぁあいうえおかきくけこガギグゲゴザジズパピプペポ", "가각간갇갈감갑값갓강개객거건",
  "ᄀᄁᄂᄃ하ᅡᅢᅣᆨᆩᆪ", "的一是不了人我在有他这中大来上个国", "தமிழ்கஙசஞடணதநபமயரலவ",
  "àáâãäåçèéêëìíîïñòóôõöøùúûüýÿāăąćčďđēęěğģīįİıłńňőœřśşšţťūůűźżžƠơƯưẠạẢảẤấ",
)
_EMOJI = ("👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "1️⃣", "❤️", "🧑‍🚀", "☃", "🏴󠁧󠁢󠁥󠁮󠁧󠁿")
_CONTROLS = "\0\x01\x07\t\n\x0b\x0c\r\x1b\x7f\x85\u200b\u200c\u200d\u2028\u2060"
_MARKS = "\u0300\u0301\u0302\u0303\u0308\u030a\u0323\u0327\u0328\u0345\u20dd"
_SPECIAL = ("[MASK]", "[SEP]", "[CLS]", "[UNK]", "[PAD]", "[MASK", "mask]")


def mixtures(count: int, *, seed: int) -> list[str]:
  """Up to 24 difficult characters each, drawn one by one."""
  rng = random.Random(seed)
  return [
    "".join(rng.choice(rng.choice(DIFFICULT)) for _ in range(rng.randrange(24)))
    for _ in range(count)]


def _word(rng: random.Random) -> str:
  letters = rng.choice(_SCRIPTS)
  kind = rng.random()
  size = rng.choice((200, 201)) if kind < 0.003 else rng.randrange(1, 9)
  word = "".join(rng.choice(letters) for _ in range(size))
  if kind > 0.85:
    word = "".join(
        char + rng.choice(_MARKS) * (rng.random() < 0.4) for char in word)
  return word


def _part(rng: random.Random) -> str:
  kind = rng.random()
  if kind < 0.6:
    return _word(rng)
  if kind < 0.68:
    return rng.choice(_EMOJI)
  if kind < 0.76:
    return rng.choice(_CONTROLS)
  if kind < 0.8:
    return rng.choice(_SPECIAL)
  if kind < 0.97:
    return rng.choice(rng.choice(DIFFICULT))
  code = rng.randrange(0x110000 - 0x800)
  return chr(code + 0x800 * (code >= 0xD800))  # no surrogates


def texts(count: int, *, seed: int) -> list[str]:
  """Words of many scripts, marks, controls, emoji, long words, anything."""
  rng = random.Random(seed)
  return [
    "".join(
        _part(rng) + rng.choice(("", "", " ", " ", ", "))
        for _ in range(rng.randrange(8)))
    for _ in range(count)]
