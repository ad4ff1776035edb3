// Bytes that start with '{' are a tokenizer.json: it loads and encodes consistently, or is refused with a message that
// is valid UTF-8. Others choose a small tokenizer, a text and where the slot lies: text survives encoding and decoding,
// and the local window of the re-tokenisation filter answers as the whole prompt does.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "../cpp/core/small_tokenizer.h"
#include "titer/core/retokenization_filter.h"
#include "titer/core/tokenizer.h"
#include "utf8.h"

namespace {

using titer::RetokenizationFilter;
using titer::Tokenizer;

void require(bool condition) {
  if (!condition) std::abort();
}

void check_file(std::string_view text) {
  try {
    const Tokenizer tokenizer = Tokenizer::from_json(text, "fuzz.json");
    const std::string_view sample = "the  thing isn't\n\n 1234 \u00e9\u6771e\u0301\ufb01\u2581 <|a|> xx";
    const titer::Encoding encoding = tokenizer.encode_with_offsets(sample);
    require(tokenizer.encode(sample) == encoding.ids);
    const std::string decoded = tokenizer.decode(encoding.ids);
    require(titer::first_invalid_utf8(decoded) == decoded.size());
    for (std::size_t i = 0; i < encoding.ids.size(); ++i) {
      require(tokenizer.has_token(encoding.ids[i]));
      require(encoding.offsets[i].begin <= encoding.offsets[i].end);
      require(encoding.offsets[i].end <= static_cast<int64_t>(sample.size()));
    }
  } catch (const std::invalid_argument& error) {
    const std::string_view message = error.what();
    require(titer::first_invalid_utf8(message) == message.size() && message.find("(fuzz.json)") != message.npos);
  }
}

const std::vector<Tokenizer>& tokenizers() {
  static const std::vector<Tokenizer> all = [] {
    std::vector<Tokenizer> loaded;
    for (const auto& [name, pre_tokenizer] : titer::testing::pre_tokenizers()) {
      loaded.push_back(Tokenizer::from_json(titer::testing::small_tokenizer(pre_tokenizer).dump(), name));
    }
    for (const auto& [name, document] : titer::testing::other_documents()) {
      loaded.push_back(Tokenizer::from_json(document.dump(), name));
    }
    return loaded;
  }();
  return all;
}

/// data: tokenizer, first border, second border, number of changed ids, (position, id) of each, text.
void check_text(const uint8_t* data, std::size_t size) {
  if (size < 4) return;
  const std::size_t num_changes = std::min<std::size_t>(data[3] % 4, (size - 4) / 2);
  const Tokenizer& tokenizer = tokenizers()[data[0] % tokenizers().size()];
  const uint8_t* changes = data + 4;
  const std::string_view text(reinterpret_cast<const char*>(changes + 2 * num_changes), size - 4 - 2 * num_changes);
  if (titer::first_invalid_utf8(text) != text.size()) {
    try {
      tokenizer.encode(text);
      std::abort();
    } catch (const std::invalid_argument&) {
      return;
    }
  }
  const titer::Encoding whole = tokenizer.encode_with_offsets(text);
  require(tokenizer.encode(text) == whole.ids);
  std::string covered;
  for (const auto& [begin, end] : whole.offsets) {
    covered.append(text.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)));
  }
  require(covered == text);
  const bool lossless = data[0] % tokenizers().size() < titer::testing::pre_tokenizers().size() &&
                        tokenizer.decode(tokenizer.encode("!")) == "!";
  require(!lossless || tokenizer.decode(whole.ids) == text);

  // Cut at token borders; the filter takes only texts that are valid on their own.
  std::size_t first = whole.ids.empty() ? 0 : data[1] % (whole.ids.size() + 1);
  std::size_t second = whole.ids.empty() ? 0 : data[2] % (whole.ids.size() + 1);
  if (first > second) std::swap(first, second);
  const std::size_t from = first == 0 ? 0 : static_cast<std::size_t>(whole.offsets[first - 1].end);
  const std::size_t to = second == 0 ? 0 : static_cast<std::size_t>(whole.offsets[second - 1].end);
  const std::string_view before = text.substr(0, from);
  const std::string_view after = text.substr(to);
  if (titer::first_invalid_utf8(before) != before.size() || titer::first_invalid_utf8(after) != after.size()) return;
  const auto at = [&](std::size_t i) { return whole.ids.begin() + static_cast<std::ptrdiff_t>(i); };
  std::vector<int64_t> slot(at(first), at(second));
  for (std::size_t c = 0; c < num_changes; ++c) {
    if (slot.empty()) slot.push_back(0);
    slot[changes[2 * c] % slot.size()] = changes[2 * c + 1] + (data[3] >= 128 ? 40 : 0);
  }
  const RetokenizationFilter filter(tokenizer, before, after, {whole.ids.data(), first},
                                    {whole.ids.data() + second, whole.ids.size() - second});
  require(filter.valid(slot) == filter.whole_prompt_valid(slot));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > 0 && data[0] == '{') {
    check_file({reinterpret_cast<const char*>(data), size});
  } else {
    check_text(data, size);
  }
  return 0;
}
