//! Writes a GGUF file anew with its weights in Q8_0: `quantize FROM TO`.
//!
//! Many answers at once are decoded as a matrix of several columns. llama.cpp multiplies these weights with all columns
//! together, and those of other kinds, Q4_1 among them, with one after the other. Weights of fewer bits keep their values,
//! but for rounding far below what their own bits tell.
//!
//! # Errors
//! A file can't be read or written; llama.cpp says why in the log.

use std::{env, error::Error, ffi::CString, io, os::unix::ffi::OsStringExt};

use headwater_origin::model::embedded;
use llama_cpp_sys_2::{
    LLAMA_FTYPE_MOSTLY_Q8_0, llama_model_quantize, llama_model_quantize_default_params, llama_model_quantize_params,
};

fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_env_filter("warn").with_writer(io::stderr).init();
    let paths: Result<Vec<_>, _> = env::args_os().skip(1).map(|path| CString::new(path.into_vec())).collect();
    let [from, to] = &paths?[..] else { return Err("usage: quantize FROM TO".into()) };
    embedded::backend()?;
    // SAFETY: llama.cpp is started; it reads the parameters and the paths, which end in NUL, during this call only.
    #[expect(unsafe_code, reason = "llama-cpp-2 has no function for it")]
    let failed = unsafe {
        let params = llama_model_quantize_params {
            ftype: LLAMA_FTYPE_MOSTLY_Q8_0,
            allow_requantize: true,
            ..llama_model_quantize_default_params()
        };
        llama_model_quantize(from.as_ptr(), to.as_ptr(), &raw const params)
    };
    if failed == 0 { Ok(()) } else { Err(format!("{from:?} can't be written anew to {to:?}").into()) }
}
