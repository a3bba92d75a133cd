/*
 * OQS_SIG_supports_ctx_str came with liboqs 0.14; liboqs-python 0.16 looks it up when it is imported.
 * liboqs 0.13 has the same fact in a field of OQS_SIG, so this answers from there.
 * An unknown or disabled algorithm answers false, as upstream does.
 */
#include <stdbool.h>
#include <oqs/oqs.h>

__attribute__((visibility("default"))) bool OQS_SIG_supports_ctx_str(const char *alg_name) {
	OQS_SIG *sig = OQS_SIG_new(alg_name);
	bool supported = sig != NULL && sig->sig_with_ctx_support;
	OQS_SIG_free(sig);
	return supported;
}
