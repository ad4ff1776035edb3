#include "unicode_normalization.h"

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "code_point_pages.h"
#include "utf8.h"

namespace titer::tokenization {
namespace {

struct Decomposition {
  char32_t code_point;
  const char32_t* text;
};

struct Composition {
  char32_t first;
  char32_t second;
  char32_t composed;
};

struct CombiningRange {
  char32_t first;
  char32_t last;
  uint8_t combining_class;
};

#include "normalization_tables.inc"

// Hangul syllables are composed by arithmetic (The Unicode Standard, section 3.12).
constexpr char32_t kFirstSyllable = 0xAC00;
constexpr char32_t kFirstLead = 0x1100;
constexpr char32_t kFirstVowel = 0x1161;
constexpr char32_t kBeforeFirstTail = 0x11A7;
constexpr char32_t kNumLeads = 19;
constexpr char32_t kNumVowels = 21;
constexpr char32_t kNumTails = 28;  // no tail counts as one
constexpr char32_t kNumSyllables = kNumLeads * kNumVowels * kNumTails;

bool is_syllable(char32_t c) { return c - kFirstSyllable < kNumSyllables; }
bool is_vowel(char32_t c) { return c - kFirstVowel < kNumVowels; }
bool is_tail(char32_t c) { return c > kBeforeFirstTail && c - kBeforeFirstTail < kNumTails; }

template <std::size_t N>
const char32_t* find_decomposition(const Decomposition (&table)[N], char32_t c) {
  const Decomposition* found = std::lower_bound(std::begin(table), std::end(table), c,
                                                [](const Decomposition& d, char32_t x) { return d.code_point < x; });
  return found != std::end(table) && found->code_point == c ? found->text : nullptr;
}

/// 0 if the two do not compose.
char32_t compose(char32_t a, char32_t b) {
  if (a - kFirstLead < kNumLeads && is_vowel(b)) {
    return kFirstSyllable + ((a - kFirstLead) * kNumVowels + (b - kFirstVowel)) * kNumTails;
  }
  if (is_syllable(a) && (a - kFirstSyllable) % kNumTails == 0 && is_tail(b)) return a + (b - kBeforeFirstTail);
  const Composition* found = std::lower_bound(std::begin(kCompositions), std::end(kCompositions), Composition{a, b, 0},
                                              [](const Composition& x, const Composition& y) {
                                                return x.first != y.first ? x.first < y.first : x.second < y.second;
                                              });
  return found != std::end(kCompositions) && found->first == a && found->second == b ? found->composed : 0;
}

uint8_t combining_class(char32_t c) {
  static const CodePointPages pages([] {
    std::vector<uint8_t> classes(CodePointPages::kNumCodePoints, 0);
    for (const CombiningRange& range : kCombiningRanges) {
      for (char32_t i = range.first; i <= range.last; ++i) classes[i] = range.combining_class;
    }
    return classes;
  }());
  return pages[c];
}

void append_decomposition(NormalizationForm form, char32_t c, std::vector<char32_t>& out) {
  if (is_syllable(c)) {
    const char32_t index = c - kFirstSyllable;
    out.push_back(kFirstLead + index / (kNumVowels * kNumTails));
    out.push_back(kFirstVowel + index / kNumTails % kNumVowels);
    if (index % kNumTails != 0) out.push_back(kBeforeFirstTail + index % kNumTails);
    return;
  }
  const char32_t* text =
      form == NormalizationForm::kNfkc ? find_decomposition(kCompatibilityDecompositions, c) : nullptr;
  if (text == nullptr) text = find_decomposition(kCanonicalDecompositions, c);
  if (text == nullptr) {
    out.push_back(c);
  } else {
    for (; *text != 0; ++text) out.push_back(*text);
  }
}

/// Sorts every run of combining characters by class; equal ones keep their order.
void reorder(std::vector<char32_t>& text) {
  const auto by_class = [](char32_t a, char32_t b) { return combining_class(a) < combining_class(b); };
  for (auto run = text.begin(); run != text.end();) {
    if (combining_class(*run) == 0) {
      ++run;
      continue;
    }
    const auto stop = std::find_if(run, text.end(), [](char32_t c) { return combining_class(c) == 0; });
    std::stable_sort(run, stop, by_class);
    run = stop;
  }
}

/// Composes every character with the last starter before it unless something between them blocks it.
void recompose(std::vector<char32_t>& text) {
  std::size_t size = 0;     // of the result, which overwrites the text
  std::size_t starter = 0;  // its position in the result
  bool has_starter = false;
  int last_class = -1;  // of the last character kept after the starter; -1: none
  for (const char32_t c : std::vector<char32_t>(text)) {
    const int c_class = combining_class(c);
    if (has_starter && last_class < c_class) {
      if (const char32_t composed = compose(text[starter], c); composed != 0) {
        text[starter] = composed;
        continue;
      }
    }
    if (c_class == 0) {
      starter = size;
      has_starter = true;
      last_class = -1;
    } else {
      last_class = c_class;
    }
    text[size++] = c;
  }
  text.resize(size);
}

std::vector<char32_t> composed_form(std::vector<char32_t> decomposed) {
  reorder(decomposed);
  recompose(decomposed);
  return decomposed;
}

/// By code point, bit k: form k may start before it.
const CodePointPages& start_pages() {
  static const CodePointPages pages([] {
    std::vector<uint8_t> starts(CodePointPages::kNumCodePoints, 3);
    for (const CombiningRange& range : kCombiningRanges) {
      for (char32_t c = range.first; c <= range.last; ++c) starts[c] = 0;
    }
    for (const Composition& composition : kCompositions) starts[composition.second] = 0;
    for (char32_t c = kFirstVowel; c < kFirstVowel + kNumVowels; ++c) starts[c] = 0;
    for (char32_t c = kBeforeFirstTail + 1; c < kBeforeFirstTail + kNumTails; ++c) starts[c] = 0;
    const std::vector<uint8_t> of_undecomposed = starts;
    const auto judge = [&](char32_t c, NormalizationForm form) {
      std::vector<char32_t> decomposed;
      append_decomposition(form, c, decomposed);
      const bool starts_alone = of_undecomposed[decomposed.front()] != 0;
      const bool stays = composed_form(decomposed) == std::vector<char32_t>{c};
      const auto bit = static_cast<uint8_t>(1U << static_cast<unsigned>(form));
      if (!starts_alone || !stays) starts[c] = static_cast<uint8_t>(starts[c] & ~bit);
    };
    for (const auto& [c, text] : kCanonicalDecompositions) {
      judge(c, NormalizationForm::kNfc);
      judge(c, NormalizationForm::kNfkc);
    }
    for (const auto& [c, text] : kCompatibilityDecompositions) judge(c, NormalizationForm::kNfkc);
    return starts;
  }());
  return pages;
}

}  // namespace

bool starts_normalization(NormalizationForm form, char32_t c) {
  return (start_pages()[c] >> static_cast<unsigned>(form) & 1U) != 0;
}

std::size_t normalization_chunk(NormalizationForm form, std::string_view text, std::size_t begin, std::size_t end) {
  std::size_t i = begin + code_point_at(text, begin).bytes;
  while (i < end) {
    const CodePoint c = code_point_at(text, i);
    if (starts_normalization(form, c.value)) break;
    i += c.bytes;
  }
  return i - begin;
}

std::string normalize(NormalizationForm form, std::string_view text) {
  std::vector<char32_t> decomposed;
  for (std::size_t i = 0; i < text.size();) {
    const CodePoint c = code_point_at(text, i);
    append_decomposition(form, c.value, decomposed);
    i += c.bytes;
  }
  std::string out;
  for (const char32_t c : composed_form(std::move(decomposed))) append_utf8(out, c);
  return out;
}

}  // namespace titer::tokenization
