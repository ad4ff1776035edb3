// Systems and sessions: what every attack talks to. A System is anything that answers a prompt; a Session is one prompt
// opened on one system and owns what that takes: plan, keys and values, workspaces, cost counters.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include <titer/core/causal_lm.h>
#include <titer/core/cost.h>
#include <titer/core/generate.h>
#include <titer/core/prompt.h>
#include <titer/core/shard.h>
#include <titer/core/target_loss.h>
#include <titer/export.h>

namespace titer {

/// What a system lets an attacker see; a set of flags.
enum class Access : uint32_t {
  kNone = 0,
  kText = 1U << 0U,
  kTopLogProbs = 1U << 1U,
  kTargetLoss = 1U << 2U,
  kLogProbs = 1U << 3U,
  kGradients = 1U << 4U,
  kActivations = 1U << 5U,
  kPrefill = 1U << 6U,
};
constexpr Access operator|(Access a, Access b) {
  return static_cast<Access>(static_cast<uint32_t>(a) | static_cast<uint32_t>(b));
}
constexpr bool includes(Access offered, Access needed) {
  return (static_cast<uint32_t>(offered) & static_cast<uint32_t>(needed)) == static_cast<uint32_t>(needed);
}

struct CandidateScores {
  at::Tensor loss;   ///< [B] float32 on the CPU, in the objective's unit; lower is closer to the target
  at::Tensor match;  ///< [B] bool on the CPU: every target token is the model's first choice
};

/// One prompt opened on one system. Belongs to one thread at a time; the model under it is shared.
///
/// On several ranks (SessionOptions::shard), queries and tokens are those of the calls, and flops are what all ranks
/// executed together; seconds and peak_bytes are those of this rank.
class TITER_EXPORT Session {
 public:
  explicit Session(Prompt prompt) : prompt_(std::move(prompt)) {}
  virtual ~Session() = default;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  /// Makes `slot_ids` the text that candidates are variants of. What candidates share with it is computed once.
  ///
  /// @param slot_ids  [S] int64
  /// @throws ValueError if S differs from the opened slot; IndexError if an id is outside the vocabulary
  virtual void rebase(const at::Tensor& slot_ids) = 0;

  /// Scores of B variants of the slot. Uses the session's workspaces.
  ///
  /// @param candidates  [B, S] int64; row b replaces the slot
  /// @throws as rebase
  virtual CandidateScores score(const at::Tensor& candidates, const TargetObjective& objective) = 0;

  /// Gradient of the objective with respect to the rows of the embedding table at the slot, and a rebase to it.
  ///
  /// @param slot_ids  [S] int64
  /// @return          [S, d] float32 on the CPU
  virtual at::Tensor embedding_gradient(const at::Tensor& slot_ids, const TargetObjective& objective) = 0;

  /// The same with respect to a one-hot encoding of the slot: its product with every row of the embedding table.
  ///
  /// @return  [S, V] float32 on the CPU
  virtual at::Tensor token_gradient(const at::Tensor& slot_ids, const TargetObjective& objective) = 0;

  /// The allowed tokens of lowest token gradient at every position, best first, without forming that gradient. Of equal
  /// ones the lowest id comes first. Where ranks share a session, a call of one rank alone.
  ///
  /// @param gradient  [S, d] of floating point, any mix of embedding gradients; rounded to the model's dtype
  /// @param allowed   [A] bool; ids from A on are not allowed, and entries beyond the vocabulary count for nothing
  /// @return          [S, m] int64 on the CPU, contiguous; m is the smaller of k and the number of allowed tokens
  /// @throws ValueError if a shape does not fit, k < 1, or the gradient of an allowed token is not finite; TypeError
  /// for
  ///         another dtype
  virtual at::Tensor promising_tokens(const at::Tensor& gradient, const at::Tensor& allowed, int64_t k) = 0;

  /// What the system answers when the slot holds this text: re-rendered and re-tokenised as a whole.
  virtual Generation generate(std::string_view slot_text, const GenerateOptions& options) = 0;

  /// score with the mean negative log-likelihood (nats) of the target tokens: [B] float32.
  at::Tensor losses(const at::Tensor& candidates) { return score(candidates, {}).loss; }

  const Prompt& prompt() const { return prompt_; }
  const Cost& cost() const { return cost_; }

  /// Called between blocks of work; what it throws ends the call, and the session stays usable.
  void set_poll(std::function<void()> poll) { poll_ = std::move(poll); }

 protected:
  void poll() const {
    if (poll_) poll_();
  }
  Cost cost_;

 private:
  Prompt prompt_;
  std::function<void()> poll_;
};

struct SessionOptions {
  /// Most candidates computed at a time, a cap on memory and nothing else; no cap where empty.
  std::optional<int64_t> batch_size;
  /// Ranks that open the same prompt on the same model, and share the work. Every rank makes the same calls, of which
  /// what rank 0 gives counts; every rank gets the same back, and the same error.
  Shard shard = {};
};

/// Anything that answers a prompt. Immutable; sessions keep what they need of it alive.
class TITER_EXPORT System {
 public:
  virtual ~System() = default;
  virtual Access access() const = 0;
  /// A text that changes when the system answers differently: what a checkpoint of a search on it belongs to.
  virtual std::string fingerprint() const = 0;
  virtual std::unique_ptr<Session> open(const Prompt& prompt, const SessionOptions& options = {}) const = 0;
};

/// A bare model.
class TITER_EXPORT ModelSystem final : public System {
 public:
  explicit ModelSystem(std::shared_ptr<const CausalLM> model) : model_(std::move(model)) {}
  Access access() const override;
  /// That of the model.
  std::string fingerprint() const override { return model_->fingerprint(); }
  /// A CandidateScorer.
  /// @throws ValueError if the prompt is longer than the model's context or tokenised for a larger vocabulary
  std::unique_ptr<Session> open(const Prompt& prompt, const SessionOptions& options = {}) const override;

 private:
  std::shared_ptr<const CausalLM> model_;
};

}  // namespace titer
