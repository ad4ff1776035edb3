#include "tokenizer_normalizer.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <utility>

#include "unicode_normalization.h"
#include "utf8.h"

namespace titer::tokenization {
namespace {

using Kind = NormalizerStep::Kind;

NormalizationForm form_of(Kind kind) { return kind == Kind::kNfc ? NormalizationForm::kNfc : NormalizationForm::kNfkc; }

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

void normalize_chunks(NormalizationForm form, const MappedText& source, MappedText& target) {
  const std::string_view text = source.text();
  std::size_t kept = 0;  // start of what is not copied yet
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t end = i + normalization_chunk(form, text, i, text.size());
    const CodePoint first = code_point_at(text, i);
    if (i + first.bytes < end || !starts_normalization(form, first.value)) {
      const std::string_view chunk = text.substr(i, end - i);
      if (const std::string normalized = normalize(form, chunk); normalized != chunk) {
        target.copy(source, kept, i);
        target.replace(source, i, end, normalized);
        kept = end;
      }
    }
    i = end;
  }
  target.copy(source, kept, text.size());
}

void replace_all(std::string_view pattern, std::string_view content, const MappedText& source, MappedText& target) {
  const std::string_view text = source.text();
  std::size_t i = 0;
  while (true) {
    const std::size_t found = text.find(pattern, i);
    target.copy(source, i, std::min(found, text.size()));
    if (found == std::string_view::npos) return;
    i = found + pattern.size();
    target.replace(source, found, i, content);
  }
}

void prepend(std::string_view content, const MappedText& source, MappedText& target) {
  target.replace(source, 0, 0, content);
  target.copy(source, 0, source.size());
}

/// Replaces `text` by what `rewrite(source, target)` makes of it.
template <class Rewrite>
void rewrite(MappedText& text, const Rewrite& rewrite_into) {
  MappedText target(text.positions() != nullptr);
  rewrite_into(text, target);
  target.finish(text);
  if (target.size() > static_cast<std::size_t>(std::numeric_limits<int32_t>::max())) {
    throw std::invalid_argument("[tokenizer] the normalized text must be shorter than 2^31 bytes, got " +
                                std::to_string(target.size()));
  }
  text = std::move(target);
}

void apply_step(const NormalizerStep& step, MappedText& text) {
  switch (step.kind) {
    case Kind::kNfc:
    case Kind::kNfkc:
      if (is_ascii(text.text())) break;
      rewrite(text, [&](const MappedText& source, MappedText& target) {
        normalize_chunks(form_of(step.kind), source, target);
      });
      break;
    case Kind::kPrepend:
      if (text.empty()) break;
      rewrite(text, [&](const MappedText& source, MappedText& target) { prepend(step.content, source, target); });
      break;
    case Kind::kReplace:
      if (text.text().find(step.pattern) == std::string::npos) break;
      rewrite(text, [&](const MappedText& source, MappedText& target) {
        replace_all(step.pattern, step.content, source, target);
      });
      break;
  }
}

}  // namespace

void Normalizer::apply(MappedText& text) const {
  for (const NormalizerStep& step : steps) apply_step(step, text);
}

std::string Normalizer::of(std::string_view text) const {
  MappedText mapped(false);
  mapped.assign(text, 0);
  apply(mapped);
  return mapped.text();
}

bool Normalizer::apply_inside(std::string& text) const {
  MappedText mapped(false);
  mapped.assign(text, 0);
  for (const NormalizerStep& step : steps) {
    if (step.kind == Kind::kPrepend) continue;
    if (step.kind == Kind::kReplace) {
      // A match of several characters could reach over the ends of the text, and what is removed leaves no border.
      if (code_point_at(step.pattern, 0).bytes < step.pattern.size() || step.content.empty()) return false;
    } else if (!mapped.empty() && !starts_normalization(form_of(step.kind), code_point_at(mapped.text(), 0).value)) {
      return false;
    }
    apply_step(step, mapped);
  }
  text = mapped.text();
  return true;
}

bool Normalizer::prepends() const {
  return std::any_of(steps.begin(), steps.end(), [](const NormalizerStep& s) { return s.kind == Kind::kPrepend; });
}

bool Normalizer::marks_words() const {
  return std::any_of(steps.begin(), steps.end(), [](const NormalizerStep& s) {
    return s.kind == Kind::kPrepend && (s.content == "\u2581" || s.content == " ");
  });
}

void Metaspace::apply(MappedText& text, bool at_start) const {
  const bool prefix = prepends(at_start) && !text.text().starts_with(' ') && !text.text().starts_with(replacement);
  if (!prefix && text.text().find(' ') == std::string::npos) return;
  rewrite(text, [&](const MappedText& source, MappedText& target) {
    if (prefix) target.replace(source, 0, 0, replacement);
    replace_all(" ", replacement, source, target);
  });
}

std::string Metaspace::inside(std::string_view text) const {
  MappedText mapped(false);
  mapped.assign(text, 0);
  Metaspace{replacement, Prepend::kNever}.apply(mapped, false);
  return mapped.text();
}

}  // namespace titer::tokenization
