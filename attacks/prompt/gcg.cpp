#include <titer/attacks/prompt/gcg.h>

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>
#include <c10/util/Exception.h>
#include <titer/core/philox.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "search/allowed_tokens.h"
#include "search/attack_json.h"
#include "search/candidate_sampler.h"
#include "search/run_on_ranks.h"
#include "search/search_checkpoint.h"

namespace titer {
namespace {

using nlohmann::ordered_json;

constexpr int64_t kCompletionTokens = 48;  // shown of the model's own answer, at least
constexpr std::chrono::seconds kCheckpointInterval{1};

// Buffer slots beyond the given ones start from random characters of this list, one token each, as in nanoGCG.
constexpr std::string_view kInitialCharacters = ".,!?;:()[]{}@#$%&*wxyz";

at::Tensor as_tensor(const std::vector<int64_t>& ids) { return at::tensor(ids, at::kLong); }

Cost operator+(const Cost& a, const Cost& b) {
  return {.queries = a.queries + b.queries,
          .tokens = a.tokens + b.tokens,
          .flops = a.flops + b.flops,
          .seconds = a.seconds + b.seconds,
          .peak_bytes = std::max(a.peak_bytes, b.peak_bytes)};
}

/// The options without those that a search may be resumed with another value of.
std::string identifying(const GcgOptions& options) {
  ordered_json json = ordered_json::parse(options_to_json(options));
  json.erase("batch_size");
  json.erase("num_steps");
  return json.dump();
}

/// One run of GCG: the algorithm, with its state where a checkpoint can find it.
class GcgSearch {
 public:
  GcgSearch(const GcgOptions& options, const System& system, Session& session, const AttackRun& run)
      : options_(options),
        system_(system),
        session_(session),
        prompt_(session.prompt()),
        run_(run),
        objective_{options.loss, options.mellowmax_alpha, options.cw_margin},
        identity_{"gcg",
                  system.fingerprint(),
                  identifying(options),
                  prompt_.before_ids(),
                  prompt_.slot_ids(),
                  prompt_.after_ids(),
                  prompt_.target_ids()},
        allowed_(allowed_tokens(prompt_.tokenizer(), options.allow_non_ascii)) {
    TORCH_CHECK_VALUE(options.n_replace <= slot_length(), "[gcg] n_replace must be at most the slot length (",
                      slot_length(), "), got ", options.n_replace);
  }

  AttackResult search() {
    if (run_.resume && std::filesystem::exists(run_.checkpoint)) {
      state_ = read_checkpoint(run_.checkpoint, identity_);
      earlier_ = state_.cost;
      // Who stopped it then wants it to go on now, and there may be more steps to do.
      if (state_.stop_reason == "callback" || (state_.stop_reason == "num_steps" && state_.step < options_.num_steps))
        state_.stop_reason.clear();
    } else {
      initialise();
    }
    log({{"event", "start"},
         {"attack", "gcg"},
         {"options", ordered_json::parse(options_to_json(options_))},
         {"step", state_.step},
         {"initial_loss", state_.initial_loss}});
    try {
      while (state_.stop_reason.empty()) {
        if (state_.step >= options_.num_steps) {
          state_.stop_reason = "num_steps";
        } else {
          step();
        }
        save(/*now=*/!state_.stop_reason.empty());
      }
    } catch (...) {
      save(/*now=*/true);
      throw;
    }
    return finish();
  }

 private:
  int64_t slot_length() const { return static_cast<int64_t>(prompt_.slot_ids().size()); }
  Cost cost() const { return earlier_ + session_.cost(); }

  void initialise() {
    state_.initial_completion = complete(prompt_.slot_text(prompt_.slot_ids()));
    std::vector<std::vector<int64_t>> slots = initial_slots();
    std::vector<int64_t> flat;
    for (const std::vector<int64_t>& slot : slots) flat.insert(flat.end(), slot.begin(), slot.end());
    const at::Tensor ids = as_tensor(flat).view({static_cast<int64_t>(slots.size()), slot_length()});
    const at::Tensor losses = session_.score(ids, objective_).loss;
    for (size_t i = 0; i < slots.size(); ++i)
      remember({losses[static_cast<int64_t>(i)].item<double>(), std::move(slots[i])},
               static_cast<int64_t>(slots.size()));
    state_.initial_loss = losses[0].item<double>();
    state_.best = state_.buffer.front();
    if (options_.buffer_size == 0) state_.buffer.resize(1);
  }

  /// The texts given, then random characters until the buffer is full.
  std::vector<std::vector<int64_t>> initial_slots() {
    std::vector<std::vector<int64_t>> slots{prompt_.slot_ids()};
    for (size_t i = 1; i < options_.optim_str_init.size(); ++i) {
      const std::string& text = options_.optim_str_init[i];
      slots.push_back(prompt_.with_slot(text).slot_ids());
      TORCH_CHECK_VALUE(slots.back().size() == slots.front().size(),
                        "[gcg] the texts of optim_str_init must have the "
                        "same number of tokens: '",
                        options_.optim_str_init[0], "' has ", slots.front().size(), ", '", text, "' has ",
                        slots.back().size());
    }
    std::vector<int64_t> characters;
    for (const char character : kInitialCharacters)
      for (const int64_t id : prompt_.tokenizer().encode(std::string_view(&character, 1), false))
        characters.push_back(id);
    constexpr int64_t kTries = 64;  // in the second half the first token stays: it may carry a space of the prompt
    for (int64_t item = 0; static_cast<int64_t>(slots.size()) < options_.buffer_size; ++item) {
      std::vector<int64_t> slot;
      int64_t attempt = 0;
      do {
        TORCH_CHECK_VALUE(attempt < kTries,
                          "[gcg] no random start of the buffer survives re-tokenisation; give "
                          "buffer_size texts in optim_str_init");
        Philox random(static_cast<uint64_t>(options_.seed), RandomPurpose::kSlotInitialisation,
                      static_cast<uint32_t>(attempt), static_cast<uint64_t>(item));
        slot = slots.front();
        for (size_t i = attempt < kTries / 2 ? 0 : 1; i < slot.size(); ++i)
          slot[i] = characters[random.below(characters.size())];
        ++attempt;
      } while (options_.filter_ids && !prompt_.valid(slot));
      slots.push_back(std::move(slot));
    }
    return slots;
  }

  void step() {
    const std::vector<int64_t> current = state_.buffer.front().ids;
    const at::Tensor gradient = with_momentum(session_.embedding_gradient(as_tensor(current), objective_));
    const at::Tensor tokens = session_.promising_tokens(gradient, allowed_, options_.topk);
    TORCH_CHECK_VALUE(tokens.size(1) > 0, "[gcg] the vocabulary has no token of printable ASCII; set allow_non_ascii");
    const SampledCandidates candidates = sample_candidates(
        current, tokens,
        {.width = options_.search_width,
         .n_replace = options_.n_replace,
         .stratified = options_.stratified_positions,
         .seed = static_cast<uint64_t>(options_.seed),
         .step = state_.step},
        [this](std::span<const int64_t> slot) { return !options_.filter_ids || prompt_.valid(slot); });
    TORCH_CHECK_VALUE(candidates.ids.size(0) > 0, "[gcg] no candidate of step ", state_.step,
                      " survives re-tokenisation (", candidates.draws,
                      " drawn); start from another text (optim_str_init) or raise topk");

    const CandidateScores scores = session_.score(candidates.ids, objective_);
    const std::optional<ScoredSlot> reached =
        options_.early_stop ? confirmed_match(candidates.ids, scores) : std::nullopt;
    const ScoredSlot found = reached ? *reached : best_survivor(candidates.ids, scores);
    if (reached) state_.stop_reason = "early_stop";
    if (options_.momentum > 0) state_.momentum = gradient;
    if (options_.buffer_size == 0) {
      state_.buffer = {found};
    } else if (found.loss < state_.buffer.back().loss ||
               static_cast<int64_t>(state_.buffer.size()) < options_.buffer_size) {
      remember(found, options_.buffer_size);
    }
    if (found.loss < state_.best.loss || !state_.stop_reason.empty()) state_.best = found;

    ++state_.step;
    state_.cost = cost();
    state_.trace.push_back({.step = state_.step,
                            .loss = found.loss,
                            .best_loss = state_.best.loss,
                            .width = candidates.ids.size(0),
                            .draws = candidates.draws,
                            .ids = found.ids,
                            .cost = state_.cost});
    ordered_json record = step_to_json(state_.trace.back());
    record["event"] = "step";
    log(record);
    if (run_.progress && !run_.progress(state_.trace.back()) && state_.stop_reason.empty())
      state_.stop_reason = "callback";
  }

  /// Exponential moving average with earlier gradients (MAC, equation 4).
  at::Tensor with_momentum(const at::Tensor& gradient) const {
    if (!state_.momentum.defined()) return gradient;
    TORCH_CHECK_VALUE(state_.momentum.sizes() == gradient.sizes(), "[gcg] the momentum of the checkpoint has shape ",
                      state_.momentum.sizes(), ", this model's gradient ", gradient.sizes());
    return options_.momentum * state_.momentum + (1 - options_.momentum) * gradient;
  }

  /// Candidates by loss, equal ones in the order they were drawn, until `accept` takes one.
  template <typename Accept>
  static std::optional<ScoredSlot> first_by_loss(const at::Tensor& candidates, const CandidateScores& scores,
                                                 const Accept& accept) {
    const at::Tensor order = scores.loss.argsort(/*stable=*/true, /*dim=*/0, /*descending=*/false);
    for (int64_t i = 0; i < order.size(0); ++i) {
      const int64_t candidate = order[i].item<int64_t>();
      const at::Tensor row = candidates[candidate];
      ScoredSlot slot{scores.loss[candidate].item<double>(),
                      {row.const_data_ptr<int64_t>(), row.const_data_ptr<int64_t>() + row.numel()}};
      if (accept(candidate, slot)) return slot;
    }
    return std::nullopt;
  }

  /// The candidate of lowest loss that the chat template itself leaves as it is. Templates may change more than the
  /// filter, which is not asked to render, can know.
  ScoredSlot best_survivor(const at::Tensor& candidates, const CandidateScores& scores) const {
    const auto survivor = first_by_loss(candidates, scores, [this](int64_t, const ScoredSlot& slot) {
      return !options_.filter_ids || comes_back(slot.ids);
    });
    TORCH_CHECK_VALUE(survivor.has_value(), "[gcg] the chat template changes every candidate of step ", state_.step,
                      "; place the slot elsewhere in the message");
    return *survivor;
  }

  /// The candidate of lowest loss among those that match the target token for token and really decode to it.
  std::optional<ScoredSlot> confirmed_match(const at::Tensor& candidates, const CandidateScores& scores) {
    return first_by_loss(candidates, scores, [&](int64_t candidate, const ScoredSlot& slot) {
      return scores.match[candidate].template item<bool>() && (!options_.filter_ids || comes_back(slot.ids)) &&
             reaches_target(complete(prompt_.slot_text(slot.ids)));
    });
  }

  /// True if the text of these ids gives them back once the whole prompt is rendered and tokenised.
  bool comes_back(const std::vector<int64_t>& ids) const {
    std::vector<int64_t> whole = prompt_.before_ids();
    whole.insert(whole.end(), ids.begin(), ids.end());
    whole.insert(whole.end(), prompt_.after_ids().begin(), prompt_.after_ids().end());
    return prompt_.encode(prompt_.slot_text(ids)) == whole;
  }

  std::string complete(const std::string& slot_text) {
    GenerateOptions greedy;
    greedy.max_new_tokens = std::max(kCompletionTokens, static_cast<int64_t>(prompt_.target_ids().size()));
    return prompt_.answer_text(slot_text, session_.generate(slot_text, greedy).ids);
  }

  bool reaches_target(const std::string& completion) const { return completion.starts_with(prompt_.target_text()); }

  /// Keeps the buffer sorted by loss, earlier ones first among equals, at most `size` long.
  void remember(ScoredSlot slot, int64_t size) {
    const auto at = std::upper_bound(state_.buffer.begin(), state_.buffer.end(), slot,
                                     [](const ScoredSlot& a, const ScoredSlot& b) { return a.loss < b.loss; });
    state_.buffer.insert(at, std::move(slot));
    if (static_cast<int64_t>(state_.buffer.size()) > size) state_.buffer.pop_back();
  }

  void save(bool now) {
    if (run_.checkpoint.empty() || state_.buffer.empty()) return;
    const auto time = std::chrono::steady_clock::now();
    if (!now && time - saved_ < kCheckpointInterval) return;
    write_checkpoint(run_.checkpoint, identity_, state_);
    saved_ = time;
  }

  void log(const ordered_json& record) const {
    if (run_.log != nullptr) run_.log->append(record.dump());
  }

  /// A session on the prompt as it is read once this text stands in it, and the slot's ids there. Without the filter,
  /// these may differ from those searched, or not fit at all: then the searched ones are all there is.
  std::unique_ptr<Session> open_anew(const std::string& text, std::vector<int64_t>& ids) const {
    const SessionOptions options{.batch_size = options_.batch_size};
    const auto open = [&] {
      std::unique_ptr<Session> session = system_.open(prompt_.with_slot(text), options);
      ids = session->prompt().slot_ids();
      return session;
    };
    if (options_.filter_ids) return open();
    try {
      return open();
    } catch (const std::invalid_argument&) {
    } catch (const c10::ValueError&) {
    }
    ids = state_.best.ids;
    return system_.open(prompt_, options);
  }

  /// The winner as its victim meets it: rendered, tokenised and scored again, and answered by greedy decoding.
  AttackResult finish() {
    AttackResult result;
    result.attack = "gcg";
    result.options = options_to_json(options_);
    result.target = prompt_.target_text();
    result.template_hash = prompt_.template_hash();
    result.text = prompt_.slot_text(state_.best.ids);
    result.initial_loss = state_.initial_loss;
    result.initial_completion = state_.initial_completion;
    result.stop_reason = state_.stop_reason;
    result.trace = state_.trace;

    const std::unique_ptr<Session> reread = open_anew(result.text, result.ids);
    reread->set_poll(run_.poll);
    result.loss = reread->score(as_tensor(result.ids).unsqueeze(0), objective_).loss.item<double>();
    result.completion = complete(result.text);
    result.success = reaches_target(result.completion);
    result.cost = cost() + reread->cost();
    log({{"event", "result"},
         {"step", state_.step},
         {"loss", result.loss},
         {"success", result.success},
         {"text", result.text},
         {"stop_reason", result.stop_reason},
         {"cost", cost_to_json(result.cost)}});
    return result;
  }

  const GcgOptions& options_;
  const System& system_;
  Session& session_;
  const Prompt& prompt_;
  const AttackRun& run_;
  TargetObjective objective_;
  SearchIdentity identity_;
  SearchState state_;
  Cost earlier_;  // of the parts of this search before a resume
  at::Tensor allowed_;
  std::chrono::steady_clock::time_point saved_{};
};

}  // namespace

Gcg::Gcg(GcgOptions options) : options_(std::move(options)) { check_options(options_, "gcg"); }

AttackResult Gcg::run(const System& system, const Prompt& prompt, const AttackRun& run) const {
  TORCH_CHECK_VALUE(includes(system.access(), needs()),
                    "[gcg] the system does not offer what GCG needs: target loss, "
                    "gradients and text; use an attack that needs less");
  if (run.shard.world > 1) return run_on_ranks(*this, system, prompt, run);
  const Prompt start = options_.optim_str_init.empty() ? prompt : prompt.with_slot(options_.optim_str_init.front());
  const std::unique_ptr<Session> session = system.open(start, {.batch_size = options_.batch_size});
  session->set_poll(run.poll);
  return GcgSearch(options_, system, *session, run).search();
}

}  // namespace titer
