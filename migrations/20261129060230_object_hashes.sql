-- Hashes of every object that a row names, so that each is compared before its bytes are used.

alter table models add column files jsonb, add column torchscript jsonb;
comment on column models.files is
    'Size and SHA-256 of each object below models.objects, by name; null for base models, which have model.safetensors only, and for models of version 0.1.0.';
comment on column models.torchscript is
    'Size and SHA-256 of scripts/<job in hex>/model.pt; null until it is exported.';
