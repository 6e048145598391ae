// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <curl/curl.h>

// libcurl brings 36 shared libraries: it is opened by the first request, not by the loader, so that a command without
// network traffic does not pay for it. Its headers are needed at build time only. Every other function
// needs a successful `hm_curl_load`.
//
// `curl_easy_setopt` and `curl_easy_getinfo` are variadic, which Swift cannot call: one wrapper per value type.

/// Opens libcurl and initialises it, once per process. NULL, or why it cannot be used (valid for ever).
const char *hm_curl_load(void);

typedef size_t (*hm_curl_io)(char *buffer, size_t size, size_t count, void *context);
typedef int (*hm_curl_seek)(void *context, curl_off_t offset, int origin);

CURL *hm_easy_init(void);
void hm_easy_reset(CURL *easy);
void hm_easy_cleanup(CURL *easy);
const char *hm_easy_strerror(CURLcode code);
CURLcode hm_easy_set_long(CURL *easy, CURLoption option, long value);
CURLcode hm_easy_set_offset(CURL *easy, CURLoption option, curl_off_t value);
CURLcode hm_easy_set_string(CURL *easy, CURLoption option, const char *value);
CURLcode hm_easy_set_pointer(CURL *easy, CURLoption option, void *value);
/// The bytes are copied.
CURLcode hm_easy_set_blob(CURL *easy, CURLoption option, const void *bytes, size_t count);
CURLcode hm_easy_set_list(CURL *easy, CURLoption option, struct curl_slist *value);
CURLcode hm_easy_set_io(CURL *easy, CURLoption option, hm_curl_io function);
CURLcode hm_easy_set_seek(CURL *easy, hm_curl_seek function);
/// Goes on after a callback returned `CURL_WRITEFUNC_PAUSE`. Only on the thread that owns the handle.
CURLcode hm_easy_resume(CURL *easy);
static const size_t hm_write_pause = CURL_WRITEFUNC_PAUSE;
static const size_t hm_read_abort = CURL_READFUNC_ABORT;
CURLcode hm_easy_get_string(CURL *easy, CURLINFO info, char **value);
CURLcode hm_easy_get_long(CURL *easy, CURLINFO info, long *value);

struct curl_slist *hm_slist_append(struct curl_slist *list, const char *text);
void hm_slist_free(struct curl_slist *list);

CURLM *hm_multi_init(void);
void hm_multi_cleanup(CURLM *multi);
CURLMcode hm_multi_add(CURLM *multi, CURL *easy);
CURLMcode hm_multi_remove(CURLM *multi, CURL *easy);
CURLMcode hm_multi_perform(CURLM *multi, int *running);
/// Waits for traffic, a timer of libcurl, `hm_multi_wakeup` or the timeout.
CURLMcode hm_multi_poll(CURLM *multi, int timeout_ms);
/// The only function another thread may call while the owner works with `multi`.
CURLMcode hm_multi_wakeup(CURLM *multi);
/// 1 with `code` set when the one transfer of `multi` has ended, else 0.
int hm_multi_ended(CURLM *multi, CURLcode *code);
